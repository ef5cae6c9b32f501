"""What others' long trainings teach: public records of them, and the facts that the rules take from them.

`sources` makes the records out of the public repositories, `store` keeps them, `rates`, `optimizers` and `prefixes`
derive facts, `facts` puts them into the file that ships, and `replay` runs races on recorded curves.
`python -m optselect.recipes.records --help` names the commands. The records do not ship; the facts do.
"""
