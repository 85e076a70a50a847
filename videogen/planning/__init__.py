"""From a job to a plan, without any I/O."""
