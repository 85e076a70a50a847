"""The real things behind `videogen.ports`, one file per outside thing."""
