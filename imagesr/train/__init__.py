"""Training: `config` holds a run's settings, `training` trains, `callbacks` saves and draws after every epoch.

`start` makes the first weights, `validation` measures, `runs` reads and writes run folders, `blend` mixes two networks,
`extractors` trains feature extractors. Losses are in `losses`, SRGAN is in `gan`. Data belongs in `datasets`, networks
in `models`. Only `plots` imports Matplotlib, and only `config` pydantic.
"""
