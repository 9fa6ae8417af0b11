"""A U-Net that sees the CT and, where there is one, a T1-weighted MR laid onto it: early fusion as in HaN-Seg."""
