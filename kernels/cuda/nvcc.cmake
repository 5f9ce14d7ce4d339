# SPDX-License-Identifier: Apache-2.0
# libcadre-cuda.so by nvcc: machine code for CADRE_CUDA_ARCHITECTURES, and PTX of the newest of them, which a driver compiles for GPUs that
# come later. The CUDA runtime is linked into it, so that it needs the driver alone, and that when a device is opened.
#
# Files *_sm90.cu use instructions that Hopper has and nothing later (wgmma): for them there is no PTX that another GPU could take.
# What ptxas says of the kernels of a file is kept beside its object, and their PTX: tests/cuda/check_static.py reads them.
set(NVCC_FLAGS -std=c++17 -O3 -fmad=false --compress-mode=size --threads 0 -Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off,-Wall,-Wextra -I${CMAKE_SOURCE_DIR})
if(CADRE_WERROR)
  list(APPEND NVCC_FLAGS -Werror=all-warnings -Xcompiler=-Werror)
endif()

set(GENCODE)
foreach(architecture ${CADRE_CUDA_ARCHITECTURES})
  list(APPEND GENCODE -gencode=arch=compute_${architecture},code=sm_${architecture})
endforeach()
list(GET CADRE_CUDA_ARCHITECTURES -1 newest)
list(APPEND GENCODE -gencode=arch=compute_${newest},code=compute_${newest})

set(NVCC_OUT ${CMAKE_CURRENT_BINARY_DIR}/nvcc)
file(MAKE_DIRECTORY ${NVCC_OUT})
set(objects)
foreach(source ${DEVICE_SOURCES} ${HOST_SOURCES})
  set(object ${NVCC_OUT}/${source}.o)
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

set(ptx)
foreach(source ${DEVICE_SOURCES})
  add_custom_command(OUTPUT ${NVCC_OUT}/${source}.ptx
    COMMAND ${NVCC} ${NVCC_FLAGS} -arch=sm_90a -ptx ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${NVCC_OUT}/${source}.ptx
    DEPENDS ${NVCC_OUT}/${source}.o VERBATIM)
  list(APPEND ptx ${NVCC_OUT}/${source}.ptx)
endforeach()

set(library ${CMAKE_BINARY_DIR}/lib/cadre/libcadre-cuda.so)
add_custom_command(OUTPUT ${library}
  COMMAND ${NVCC} -shared -cudart=static -Xlinker=-z,defs,--exclude-libs=ALL -o ${library} ${objects} $<TARGET_OBJECTS:cadre_cuda_c>
  DEPENDS ${objects} $<TARGET_OBJECTS:cadre_cuda_c> COMMAND_EXPAND_LISTS VERBATIM)
add_custom_target(cadre_cuda_library ALL DEPENDS ${library})
if(BUILD_TESTING)
  add_custom_target(cadre_cuda_ptx ALL DEPENDS ${ptx})
endif()
# lib/ whatever CMAKE_INSTALL_LIBDIR is: programs look there beside bin/ (kernels/backend.c).
install(FILES ${library} DESTINATION lib/cadre COMPONENT cuda)
install(FILES ${CMAKE_SOURCE_DIR}/packaging/cuda/NOTICE DESTINATION share/doc/cadre-cuda COMPONENT cuda)
