# SPDX-License-Identifier: Apache-2.0
# Whether nvcc compiles the CUDA backend, for which architectures, and how.
set(CADRE_CUDA AUTO CACHE STRING "the CUDA backend, libcadre-cuda.so: ON, OFF, or AUTO: where nvcc of CUDA 13 is")
set(CADRE_CUDA_ARCHITECTURES 80 86 89 90a 100 CACHE STRING "of GPUs, the newest last: it is there as PTX too, for those that come later")
find_program(NVCC nvcc PATHS /usr/local/cuda/bin)
set(CADRE_WITH_CUDA FALSE)

# What is wrong with nvcc; nothing: empty.
set(wrong)
if(NVCC)
  execute_process(COMMAND ${NVCC} --version OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(NOT said MATCHES "release ([0-9]+\\.[0-9]+)")
    set(wrong "${NVCC} does not say of which CUDA it is")
  elseif(CMAKE_MATCH_1 VERSION_LESS 13)
    set(wrong "${NVCC} is of CUDA ${CMAKE_MATCH_1}, and 13.0 or later is needed")
  endif()
else()
  set(wrong "there is no nvcc in PATH or /usr/local/cuda/bin")
endif()

if(CADRE_CUDA STREQUAL "OFF")
  message(STATUS "CUDA: off, the backend for GPUs is not built")
elseif(CADRE_FUZZ OR NOT CADRE_SANITIZE STREQUAL "")
  message(STATUS "CUDA: builds with sanitizers are without the backend for GPUs")
elseif(NOT wrong)
  message(STATUS "CUDA: found ${NVCC}")
  set(CADRE_WITH_CUDA TRUE)
elseif(CADRE_CUDA STREQUAL "AUTO")
  message(STATUS "CUDA: ${wrong}: the backend for GPUs is not built")
else()
  message(FATAL_ERROR "CADRE_CUDA is ON, but ${wrong}: install the CUDA toolkit, or use AUTO or OFF")
endif()
if(NOT CADRE_WITH_CUDA)
  return()
endif()

set(NVCC_FLAGS -std=c++17 -O3 -fmad=false --compress-mode=size --threads 0 -Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off,-Wall,-Wextra -I${CMAKE_SOURCE_DIR})
if(CADRE_WERROR)
  list(APPEND NVCC_FLAGS -Werror=all-warnings -Xcompiler=-Werror)
endif()
# Machine code for each architecture, and PTX of the newest, which a driver compiles for GPUs that come later.
set(GENCODE)
foreach(architecture ${CADRE_CUDA_ARCHITECTURES})
  list(APPEND GENCODE -gencode=arch=compute_${architecture},code=sm_${architecture})
endforeach()
list(GET CADRE_CUDA_ARCHITECTURES -1 newest)
list(APPEND GENCODE -gencode=arch=compute_${newest},code=compute_${newest})

# cadre_nvcc_library(TARGET FILE SOURCE... [OBJECTS OBJECT...]): a shared library into which the CUDA runtime is linked, so that it needs the
# driver alone, and that when a device is opened. Objects, and beside each what ptxas says of its kernels, are in nvcc/ of the folder's build.
#
# Files *_sm90.cu use instructions that Hopper has and nothing later (wgmma): of them there is no PTX that another GPU could take.
function(cadre_nvcc_library target library)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "" OBJECTS)
  set(objects)
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/nvcc)
  foreach(source ${arg_UNPARSED_ARGUMENTS})
    set(object ${CMAKE_CURRENT_BINARY_DIR}/nvcc/${source}.o)
    # Without names of temporary files in them, objects are the same each time.
    set(how --objdir-as-tempdir ${GENCODE})
    if(source MATCHES "_sm90\\.cu$")
      set(how --objdir-as-tempdir -gencode=arch=compute_90a,code=sm_90a)
    elseif(source MATCHES "\\.cc$")
      set(how)
    endif()
    add_custom_command(OUTPUT ${object} ${object}.log
      COMMAND ${NVCC} ${NVCC_FLAGS} ${how} -Xptxas=-v -MD -MF ${object}.d -c ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object} 2> ${object}.log
        || (cat ${object}.log >&2 && false)
      DEPENDS ${source} DEPFILE ${object}.d COMMENT "Compiling ${source} with nvcc")
    list(APPEND objects ${object})
  endforeach()
  add_custom_command(OUTPUT ${library}
    COMMAND ${NVCC} -shared -cudart=static --no-device-link -Xlinker=-z,defs,--exclude-libs=ALL -o ${library} ${objects} ${arg_OBJECTS}
    DEPENDS ${objects} ${arg_OBJECTS} COMMAND_EXPAND_LISTS VERBATIM)
  add_custom_target(${target} ALL DEPENDS ${library})
endfunction()
