"""Optuna's studies: what `hydra/sweeper=optuna` searches, and how a trial's job reports to its study."""
