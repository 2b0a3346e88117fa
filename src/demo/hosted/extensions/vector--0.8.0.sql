-- Stand-in for pgvector 0.8: embeddings can be kept, and not searched. Plain
-- PostgreSQL lacks the type, so a table that has it cannot be restored there.
\echo Use "CREATE EXTENSION vector" to load this file. \quit

create domain vector as real[];
