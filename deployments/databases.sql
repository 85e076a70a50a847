-- Two databases: Prefect and videogen both keep the version of their schema in a table `alembic_version`.
CREATE DATABASE prefect;
CREATE DATABASE videogen;
