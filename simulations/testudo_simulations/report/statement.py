"""The federation's privacy statements on the page: one closed block a setting."""

from __future__ import annotations

from collections.abc import Sequence

from testudo_common.markup import Markup, join
from testudo_common.privacy.statement import PrivacyStatement
from testudo_common.reporting.statement import statement_block
from testudo_simulations.report import wording
from testudo_simulations.report.summaries import SettingSummary


def statements(settings: Sequence[SettingSummary]) -> Markup:
    """The statement of the first run of each setting; its seeds have the same plan but for the seed."""
    return join(
        *(
            statement_block(f"Privacy statement: {wording.place(one)}", PrivacyStatement.of_json(one.runs[0].statement))
            for one in settings
        )
    )
