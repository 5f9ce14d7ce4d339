# SPDX-License-Identifier: Apache-2.0
# Every library that Cadre uses, all of them Debian 12 packages (./cadre setup installs them).
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(PACKAGES REQUIRED IMPORTED_TARGET
  libprotobuf-c libuv zlib jansson yaml-0.1 libmicrohttpd libpcre2-8 libutf8proc libxxhash libsodium libssl libcrypto sqlite3 libzstd ucx)
add_library(cadre_dependencies INTERFACE)
# grpc.pc lists some sixty absl libraries; the shared library brings its own. Only grpc's C surface is used.
target_link_libraries(cadre_dependencies INTERFACE PkgConfig::PACKAGES grpc gpr Threads::Threads m dl)
target_link_options(cadre_dependencies INTERFACE -Wl,--as-needed)
