-- Run once by the official image, as superuser, when its volume is empty: the logins and databases of the stack.
-- Passwords come from the container's environment; psql reads them itself, so they stand in no file and no argument.
-- Tables of the samples are made later, by the service `samples`.
\set ON_ERROR_STOP on
\getenv prefect_password PREFECT_DB_PASSWORD
\getenv acme_password ACME_DB_PASSWORD
\getenv harbor_password HARBOR_DB_PASSWORD

SET password_encryption = 'scram-sha-256';
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE ROLE acme LOGIN PASSWORD :'acme_password';
CREATE ROLE harbor LOGIN PASSWORD :'harbor_password';

CREATE DATABASE prefect OWNER prefect;
-- The OLAP layer: OLTP tables, views and Mozart's state.
CREATE DATABASE axiom;
-- The sample tenants' sources.
CREATE DATABASE acme OWNER acme;
CREATE DATABASE harbor OWNER harbor;

-- Nobody else enters these; readers of the OLAP layer do enter axiom.
REVOKE CONNECT ON DATABASE prefect, acme, harbor FROM PUBLIC;

-- The Prefect server searches by trigrams.
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
