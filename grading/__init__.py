"""What instructors run."""

import sys

# With it, jsonschema checks internationalised addresses, of which a notebook has none. It takes a
# second to import: half of all that pytest needs to start.
sys.modules.setdefault("rfc3987_syntax", None)
