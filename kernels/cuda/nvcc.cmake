# SPDX-License-Identifier: Apache-2.0
# libcadre-cuda.so, and for tests/cuda/check_static.py the PTX of its kernels.
cadre_nvcc_library(cadre_cuda_library ${CMAKE_BINARY_DIR}/lib/cadre/libcadre-cuda.so ${DEVICE_SOURCES} ${HOST_SOURCES}
  OBJECTS $<TARGET_OBJECTS:cadre_cuda_c>)
# lib/ whatever CMAKE_INSTALL_LIBDIR is: programs look there beside bin/ (kernels/backend.c).
install(FILES ${CMAKE_BINARY_DIR}/lib/cadre/libcadre-cuda.so DESTINATION lib/cadre COMPONENT cuda)
install(FILES ${CMAKE_SOURCE_DIR}/packaging/cuda/NOTICE DESTINATION share/doc/cadre-cuda COMPONENT cuda)

if(BUILD_TESTING)
  set(ptx)
  foreach(source ${DEVICE_SOURCES})
    set(file ${CMAKE_CURRENT_BINARY_DIR}/nvcc/${source})
    add_custom_command(OUTPUT ${file}.ptx COMMAND ${NVCC} ${NVCC_FLAGS} -arch=sm_90a -ptx ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${file}.ptx
      DEPENDS ${file}.o VERBATIM)
    list(APPEND ptx ${file}.ptx)
  endforeach()
  add_custom_target(cadre_cuda_ptx ALL DEPENDS ${ptx})
endif()
