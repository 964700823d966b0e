"""Episodes to rows: recipes, tool schemas, masks, splits, templates, card."""
