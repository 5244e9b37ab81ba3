"""The look of pages: charts, the formats of numbers and times, templates, and the bundle that draws charts."""
