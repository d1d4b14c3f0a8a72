"""The checks of ``basicsr doctor``: facts about this machine, and for each problem a reason and a cure.

The checks report what is missing or broken and do not raise.
"""
