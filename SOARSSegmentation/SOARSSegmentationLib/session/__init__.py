"""An editing session: its clock, its events, its folder."""
