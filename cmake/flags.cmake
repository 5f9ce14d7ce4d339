# SPDX-License-Identifier: Apache-2.0
# Flags that are part of the contract: -ffp-contract=off because a fused multiply-add is written where it is meant, nowhere else.
add_library(cadre_flags INTERFACE)
target_include_directories(cadre_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(cadre_flags INTERFACE _GNU_SOURCE)
target_compile_options(cadre_flags INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
  -fno-strict-aliasing -ffp-contract=off -fno-math-errno)
# Whoever starts a program on a machine that it cannot compute on gets a sentence, so everything is for x86-64-v2 (every processor since 2009) but the
# kernels: those take CADRE_AVX2, and run only on a device that is open.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  target_compile_options(cadre_flags INTERFACE -march=x86-64-v2)
  set(CADRE_AVX2 -mavx2 -mfma -mf16c)
  set(CADRE_AVX512 -mavx512f -mavx512bw -mavx512dq -mavx512vl)   # beside CADRE_AVX2
endif()
if(CADRE_WERROR)
  target_compile_options(cadre_flags INTERFACE -Werror)
endif()
# Position-independent programs, whatever the compiler's default. -fPIE and not -fPIC, which would keep functions of one file from being inlined.
add_compile_options($<$<COMPILE_LANGUAGE:C>:-fPIE>)
add_link_options($<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-pie>)
# Hardening, generated code included, for every build that no sanitizer watches. _FORTIFY_SOURCE needs optimised code; a default of the compiler's own is undone first.
if(CADRE_SANITIZE STREQUAL "" AND NOT CADRE_FUZZ)
  add_compile_options("$<$<COMPILE_LANGUAGE:C>:-fstack-protector-strong;-fstack-clash-protection>"
    "$<$<AND:$<COMPILE_LANGUAGE:C>,$<CONFIG:Release,RelWithDebInfo,MinSizeRel>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2>")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    add_compile_options(-fcf-protection)
  endif()
  add_link_options(LINKER:-z,relro,-z,now,-z,noexecstack)
endif()
if(CADRE_SANITIZE STREQUAL "address")
  target_compile_options(cadre_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_link_options(cadre_flags INTERFACE -fsanitize=address,undefined)
elseif(CADRE_SANITIZE STREQUAL "thread")
  target_compile_options(cadre_flags INTERFACE -fsanitize=thread)
  target_link_options(cadre_flags INTERFACE -fsanitize=thread)
elseif(NOT CADRE_SANITIZE STREQUAL "")
  message(FATAL_ERROR "CADRE_SANITIZE is '${CADRE_SANITIZE}': use address, thread or nothing")
endif()
# Instrumented code misleads GCC's warnings that follow values through a function.
if(CADRE_SANITIZE AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
  target_compile_options(cadre_flags INTERFACE -Wno-maybe-uninitialized -Wno-format-truncation)
endif()
if(CADRE_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "CADRE_FUZZ needs clang (libFuzzer): configure with --preset fuzz")
  endif()
  # instrumented, some loops of the kernels do not unroll: they are slower, which nobody minds here
  target_compile_options(cadre_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -Wno-pass-failed)
  target_link_options(cadre_flags INTERFACE -fsanitize=address,undefined)
endif()
