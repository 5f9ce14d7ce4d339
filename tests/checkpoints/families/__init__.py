# SPDX-License-Identifier: Apache-2.0
"""The families that checkpoints are drawn of, by model_type: FAMILIES of every module here, each of which has families that are kin."""
import importlib
import pkgutil

FAMILIES = {}
for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
    FAMILIES |= importlib.import_module(f"{__name__}.{module.name}").FAMILIES
