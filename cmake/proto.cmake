# SPDX-License-Identifier: Apache-2.0
# protoc-c makes the messages; protoc makes the descriptor set that reflection serves, embedded by proto/descriptors.S.
find_program(PROTOC protoc REQUIRED)
find_program(PROTOC_C protoc-c REQUIRED)
file(GLOB_RECURSE PROTO_FILES CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR}/proto ${CMAKE_SOURCE_DIR}/proto/*.proto)
set(PROTO_OUT ${CMAKE_BINARY_DIR}/gen)
file(MAKE_DIRECTORY ${PROTO_OUT})
set(PROTO_GENERATED)
set(PROTO_INPUTS)
foreach(file ${PROTO_FILES})
  string(REGEX REPLACE "\\.proto$" "" stem ${file})
  set(input ${CMAKE_SOURCE_DIR}/proto/${file})
  list(APPEND PROTO_INPUTS ${input})
  add_custom_command(OUTPUT ${PROTO_OUT}/${stem}.pb-c.c ${PROTO_OUT}/${stem}.pb-c.h
    COMMAND ${PROTOC_C} -I${CMAKE_SOURCE_DIR}/proto --c_out=${PROTO_OUT} ${input} DEPENDS ${input} VERBATIM)
  list(APPEND PROTO_GENERATED ${PROTO_OUT}/${stem}.pb-c.c)
endforeach()
# Reflection reads descriptors, which are messages themselves; their .proto file comes with libprotobuf-dev.
find_path(PROTOBUF_INCLUDE google/protobuf/descriptor.proto REQUIRED)
set(stem google/protobuf/descriptor)
add_custom_command(OUTPUT ${PROTO_OUT}/${stem}.pb-c.c ${PROTO_OUT}/${stem}.pb-c.h
  COMMAND ${PROTOC_C} -I${PROTOBUF_INCLUDE} --c_out=${PROTO_OUT} ${PROTOBUF_INCLUDE}/${stem}.proto DEPENDS ${PROTOBUF_INCLUDE}/${stem}.proto VERBATIM)
list(APPEND PROTO_GENERATED ${PROTO_OUT}/${stem}.pb-c.c)
set(PROTO_DESCRIPTORS ${PROTO_OUT}/descriptors.fds)
add_custom_command(OUTPUT ${PROTO_DESCRIPTORS}
  COMMAND ${PROTOC} -I${CMAKE_SOURCE_DIR}/proto --include_imports --descriptor_set_out=${PROTO_DESCRIPTORS} ${PROTO_INPUTS}
  DEPENDS ${PROTO_INPUTS} VERBATIM)
set_source_files_properties(${CMAKE_SOURCE_DIR}/proto/descriptors.S PROPERTIES OBJECT_DEPENDS ${PROTO_DESCRIPTORS} COMPILE_OPTIONS "-I${PROTO_OUT}")
add_library(cadre_proto STATIC ${PROTO_GENERATED} ${CMAKE_SOURCE_DIR}/proto/descriptors.S)
target_include_directories(cadre_proto PUBLIC ${PROTO_OUT})
target_compile_options(cadre_proto PRIVATE -w)
target_link_libraries(cadre_proto PUBLIC PkgConfig::PACKAGES)
