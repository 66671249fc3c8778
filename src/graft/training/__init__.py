"""How a run trains: phases, schedules, optimizers, batches, Lightning's Trainer."""
