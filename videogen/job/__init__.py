"""The model of a job, and job files."""
