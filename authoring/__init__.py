"""What authors run: notebooks executed again, the student edition, the site."""

COLAB = "colab"  # the id of the cell that `course.py links` adds; it is no part of what is taught
LINKS = r"\n>\n> Open in \[Colab\].*"  # the line that it adds to a notebook's first cell
