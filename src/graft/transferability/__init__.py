"""How well a backbone may suit data, measured before anything is trained."""
