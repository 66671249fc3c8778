"""The few calls that Hydra 1.3 and 1.4, with their OmegaConfs, have no common form for; all else is the same code."""

import hydra
from omegaconf import OmegaConf

IS_1_3 = hydra.__version__.startswith("1.3")
# 1.3 warns without its version, 1.4 with one.
VERSION_BASE = {"version_base": "1.3"} if IS_1_3 else {}
# What @hydra.main takes: 1.4 also wants to be told what Hydra itself may build, which is conf/hydra's callback.
MAIN = VERSION_BASE or {"execution_whitelist": ["graft.cli.sweep_callback.SweepCallback"]}
register_resolver = OmegaConf.register_new_resolver if IS_1_3 else OmegaConf.register_resolver
