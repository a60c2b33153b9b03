"""`fercache report`: the results in a project folder, as one page that opens offline.

`findings` collects the data, `charts` and `time_lines` lay out the drawings, `templates/` draws them, and
`page.SECTIONS` lists the sections of the page in their order. To add a chart, write one function

    def confidences(findings: Findings) -> Markup | None:
        return render("confidences.html", values=...)

in a file of its own, with its template, and add the entry `"Confidences": confidences` to `page.SECTIONS`.
None leaves the section out. `charts.Axes` and the macros in `templates/drawing.svg` draw axes, text and lines,
those in `templates/parts.html` tables, figures and notes; every value is escaped.
"""

from fercache.report.stage import report

__all__ = ["report"]
