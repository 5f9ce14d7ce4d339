# SPDX-License-Identifier: Apache-2.0
# The commit that a build is of, for --version and the build info of the metrics: commit.c is looked at in every build and written only when the commit is another one.
# It is linked into the programs alone, over the weak 'unknown' of common/base/version.c, so that a new commit links four programs and no tests.
if(NOT CMAKE_SCRIPT_MODE_FILE)
  find_package(Git QUIET)
  set(CADRE_COMMIT_FILE ${CMAKE_BINARY_DIR}/commit/commit.c)
  add_custom_target(cadre_commit_look BYPRODUCTS ${CADRE_COMMIT_FILE} VERBATIM
    COMMAND ${CMAKE_COMMAND} -DGIT=${GIT_EXECUTABLE} -DSOURCE=${CMAKE_SOURCE_DIR} -DFILE=${CADRE_COMMIT_FILE} -P ${CMAKE_CURRENT_LIST_FILE})
  add_library(cadre_commit OBJECT ${CADRE_COMMIT_FILE})
  target_link_libraries(cadre_commit PRIVATE cadre_flags)
  add_dependencies(cadre_commit cadre_commit_look)
  return()
endif()

# Sources that are no checkout are of the commit that CADRE_COMMIT says, where they are unpacked inside of somebody else's checkout, too.
set(commit unknown)
if("$ENV{CADRE_COMMIT}" MATCHES "^[0-9a-f]+(-dirty)?$")
  set(commit $ENV{CADRE_COMMIT})
endif()
if(GIT)
  execute_process(COMMAND ${GIT} -C ${SOURCE} rev-parse --show-toplevel OUTPUT_VARIABLE top OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  file(REAL_PATH ${SOURCE} source)
  if(top STREQUAL source)
    # Without optional locks: whoever works in the checkout meanwhile is not in the way of a build, nor it in theirs.
    execute_process(COMMAND ${GIT} -C ${SOURCE} --no-optional-locks describe --always --dirty --abbrev=12 --exclude=*
      RESULT_VARIABLE failed OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(NOT failed)
      set(commit ${described})
    endif()
  endif()
endif()
file(CONFIGURE OUTPUT ${FILE} CONTENT [[
/* Written by cmake/commit.cmake. */
#include "common/base/version.h"

const char cad_commit[] = "@commit@";
]] @ONLY)
