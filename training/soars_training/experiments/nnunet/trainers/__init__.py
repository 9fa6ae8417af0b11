"""What nnU-Net's commands find through ``nnUNet_extTrainer``; imported by nobody else."""
