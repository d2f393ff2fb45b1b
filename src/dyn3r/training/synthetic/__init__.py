"""The synthetic world: procedurally made scenes with exact ground truth."""
