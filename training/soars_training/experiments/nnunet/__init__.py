"""nnU-Net on an ablation's patients: its own commands plan, train and predict."""
