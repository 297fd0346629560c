"""What must hold before any user sees a candidate. Each check is a module; `checklist` names their order.

A check looks at what was built of both sides and gives one CheckResult: a sentence that shows both numbers or names,
and evidence for the record. A model that is wrong is a check that failed, never an exception. To add a check, write
its module beside `interface` and put its function into `checklist.CHECKS`.
"""
