"""The report, and a plan, each as one page: charts and tables, with all that they need inside the file.

Whoever reads it may have no network and no trust in who wrote the prompts and answers: every text is escaped, charts
only get names that are restricted to letters, digits and dashes, and the page allows itself nothing from outside.
The same report gives the same bytes.
"""

from drupelet.forge.page.write import plan_page, report_page

__all__ = ["plan_page", "report_page"]
