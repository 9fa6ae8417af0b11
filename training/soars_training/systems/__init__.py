"""The systems that can be trained as a whole, behind one small interface (`interface.TrainingSystem`).

`registry.training_system` finds one by its name, which is also the one that its bundles carry. The cascade is trained
branch by branch (`soars_training.fitting`) and needs no entry here.
"""
