/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/exp.h"

float kn_exp(float x) { return kn_exp_1(x); }
