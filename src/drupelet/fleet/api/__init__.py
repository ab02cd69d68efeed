"""The management API: `/api/v1`, JSON in and out, problems as `{what, where, fix}` (docs/formats/rest-api.md)."""
