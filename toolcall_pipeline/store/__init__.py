"""PostgreSQL: the server, the tables, linking and bulk loading, projects, and reading episodes back."""
