"""Files that are printed from the models: the CRD, the config's JSON Schema, the chart's schema."""
