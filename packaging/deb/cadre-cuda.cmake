# SPDX-License-Identifier: Apache-2.0
# As cadre.cmake is, for the library that computes on GPUs. Both are of one version: the programs refuse the library of another.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME cadre-cuda)
set(CPACK_PACKAGING_INSTALL_PREFIX "/")
set(CPACK_PACKAGE_FILE_NAME cadre-cuda)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION contrib/net)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "cadre (= $ENV{DEBIAN_VERSION})")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "libcuda1 (>= 580)")   # or NVIDIA's own installer, of which apt knows nothing
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "libnvidia-ml1")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "serving cluster for Mixture-of-Experts language models, experts on GPUs")
set(CPACK_PACKAGE_DESCRIPTION "The library with which expert nodes of Cadre compute on NVIDIA GPUs of
compute capability 8.0 and later (cadre-expert --device cuda). It needs
NVIDIA's driver, version 580 or later, and no CUDA toolkit.")
