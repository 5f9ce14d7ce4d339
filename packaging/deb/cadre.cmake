# SPDX-License-Identifier: Apache-2.0
# Read by `cpack -G DEB --config` of scripts/package.sh, which adds the tree as it will be installed, the version and the maintainer.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME cadre)
set(CPACK_PACKAGING_INSTALL_PREFIX "/")
set(CPACK_PACKAGE_FILE_NAME cadre)   # of the folder that it works in

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "systemd | systemd-standalone-sysusers | systemd-sysusers")   # postinst makes the user
set(CPACK_DEBIAN_PACKAGE_SUGGESTS ca-certificates)   # cadrectl --tls without an authority
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_LIST_DIR}/postinst ${CMAKE_CURRENT_LIST_DIR}/prerm ${CMAKE_CURRENT_LIST_DIR}/postrm)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "serving cluster for Mixture-of-Experts language models")
set(CPACK_PACKAGE_DESCRIPTION "Cadre serves MoE models from a cluster in which attention and experts
scale apart: routers run attention, the KV cache and gating, expert nodes
hold the experts' weights, and token rows travel between them. The same
request gives the same bits, whatever else is in the batch and wherever
the experts live.

This package has the placement service, the router, the expert node, the
command line cadrectl, and systemd units, which it neither enables nor
starts. It computes on CPUs with AVX2, FMA and F16C.")
