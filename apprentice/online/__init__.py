"""The loop that joins the simulator and the trainer."""
