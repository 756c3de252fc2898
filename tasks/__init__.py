"""Prefect tasks: one a stage, of the stage's name. They retry, observe and report; what a stage does is in apprentice/stages."""
