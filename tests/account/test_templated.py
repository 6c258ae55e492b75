# ruff: noqa: E501 - scripts are easier to read in one line
"""Where the hook goes in what is no job script yet: templates, here-documents, scripts that submit others."""

from __future__ import annotations

import pytest

from hpcproxy.account import job_script
from hpcproxy.errors import ScriptError

HOOK, PLAIN = job_script.usual_hook(), job_script.plain_hook()

# What a template writes itself is no command of the script: mlr-org/batchtools (inst/templates/slurm-simple.tmpl, issue 291),
# ropensci/drake#1083, futureverse/future.batchtools#78, glotzerlab/signac-flow#456, Bioconductor/BiocParallel#222.
_TEMPLATES = {
    "brew, a block of code before the options": b"#!/bin/bash\n\n## Resources\n<%\n# R\nlog.file = path(log.file)\n-%>\n\n"
    b"#SBATCH -o <%= log.file %>\n<%= if (array.jobs) sprintf('#SBATCH --array=1-%i', nrow(jobs)) else '' %>\n@\nmodule add R\n",
    "brew, options as they are": b"#!/bin/bash\n#SBATCH -J x\n<%= resources[['asis']] %>\n#SBATCH -N1\n@<%= body %>\n",
    "brew, a condition": b"#!/bin/bash\n<% if (x) { %>\n#SBATCH -p <%= x %>\n<% } %>\n@\nrun\n",
    "ERB, a condition": b"#!/bin/bash\n#SBATCH -N1\n<% if x %>\n#SBATCH -p <%= x %>\n<% end %>\n@run\n",
    "EJS, a loop": b"#!/bin/bash\n<% for (const o of options) { %>\n#SBATCH <%- o %>\n<% } %>\n@run\n",
    "Jinja, blocks with names": b"{% extends base %}\n{% block header %}\n#!/bin/bash\n#SBATCH -J {{ id }}\n{% if p %}\n#SBATCH -p {{ p }}\n"
    b"{% endif %}\n#SBATCH -t {{ t }}\n@{% endblock header %}\n{{ body }}\n",
    "Jinja, the last option in a condition": b"#!/bin/bash\n#SBATCH -N1\n{%- if a %}\n{% for x in a %}\n#SBATCH -p {{ x }}\n{% endfor %}\n{% endif %}\n"
    b"@{% if b %}\nrun\n{% endif %}\n",
    "mustache": b"#!/bin/bash\n{{#gpus}}\n#SBATCH --gpus={{gpus}}\n{{/gpus}}\n@run {{cmd}}\n",
    "string.Template in the options": b"#!/bin/bash\n#SBATCH --time=$walltime\n@$command\n",
    # galaxyproject/galaxy, lib/galaxy/jobs/runners/util/job_script: the template names the shell
    "the shell is the template's": b"#!$shell\n#SBATCH -N1\n$headers\n@$command\n",
    "the shell is Jinja's": b"#!{{ shell }}\n#SBATCH -N1\n@run\n",
    # Parsl/parsl, parsl/providers/slurm/template.py; materialsproject's queue adapters
    "string.Template, more options by name": b"#!/bin/bash\n#SBATCH -J ${jobname}\n${scheduler_options}\n@\n${worker_init}\n$user_script\n",
    "string.Template with two dollars": b"#!/bin/bash\n#SBATCH --time=$${time}\n@$${pre_rocket}\n",
    "str.format, options by name": b"#!/bin/bash\n#SBATCH -t {time}\n{sbatch_extra}\n@{cmd}\n",
    "printf of Python": b"#!/bin/bash\n#SBATCH --time=%(walltime)s\n@run\n",
    "Jinja, a condition that goes on behind the options": b"#!/bin/bash\n{% if gpu %}\n#SBATCH --gres=gpu\n@nvidia-smi\n{% endif %}\nrun\n",
    "autoconf": b"#!/bin/bash\n#SBATCH --account=@ACCOUNT@\n@run\n",
}


@pytest.mark.parametrize("text", _TEMPLATES.values(), ids=_TEMPLATES)
def test_the_templates_own_lines_are_no_commands(text: bytes) -> None:
    before, after = text.rsplit(b"\n@", 1)
    script = before + b"\n" + after
    assert job_script.put(script) == before + b"\n" + PLAIN + b"\n" + after
    assert job_script.remove(job_script.put(script)) == script
    assert job_script.ignored_options(job_script.put(script)) == []
    assert job_script.state(job_script.put(script)) is job_script.State.CURRENT


def test_a_here_document_whose_tabs_go_gets_the_hook_with_them() -> None:
    script = b'#!/bin/bash\nf() {\n\tsbatch <<-"X"\n\t\t#!/bin/bash\n\t\t#SBATCH -N1\n\t\trun\n\tX\n}\n'
    assert job_script.put(script) == script.replace(b"-N1\n", b"-N1\n\t\t" + PLAIN + b"\n")
    assert job_script.put(job_script.put(script)) == job_script.put(script)
    assert job_script.remove(job_script.put(script)) == script
    assert job_script.state(job_script.put(script)) is job_script.State.CURRENT


@pytest.mark.parametrize(
    "line",
    [
        b'sbatch <<< "#!/bin/bash\n#SBATCH -N1\nrun"',
        b'sbatch --wrap="python train.py"',
        b"for i in 1 2; do sbatch job.sh $i; done",
        b"id=$(sbatch --parsable job.sh)",
        b"if ! sbatch job.sh; then exit 1; fi",
        b"JOB=1 sbatch job.sh",
        b"/usr/bin/sbatch job.sh",
        b"ls *.sh | xargs -n1 sbatch",
        b"parallel 'sbatch --export=X={} job.sh' ::: 1 2 3",
        b"nohup sbatch job.sh",
        b'echo "#SBATCH -N1" > job.sh\nsbatch job.sh',
    ],
    ids=repr,
)
def test_what_only_submits_others_is_refused_at_its_line(line: bytes) -> None:
    with pytest.raises(ScriptError, match=r"hands a job to sbatch.*Wrap the script that is submitted"):
        job_script.put(b"#!/bin/bash\nset -e\n" + line + b"\n")


@pytest.mark.parametrize(
    "line", [b"# sbatch x", b"sbatch $0", b'echo "sbatch x"', b"my-sbatch x", b'sbatch "${BASH_SOURCE[0]}"'], ids=repr
)
def test_what_submits_nothing_else_is_a_job(line: bytes) -> None:
    script = b"#!/bin/bash\n" + line + b"\nrun\n"
    assert job_script.put(script) == b"#!/bin/bash\n" + HOOK + b"\n" + line + b"\nrun\n"


def test_a_job_that_submits_others_is_told_where() -> None:
    assert job_script.submissions(b"#!/bin/bash\n#SBATCH -N1\nrun\nsbatch next.sh\ncat <<X\nsbatch no\nX\n") == [4]


@pytest.mark.parametrize("options", [b"#SBATCH -N1\n", b""], ids=["options inside", "options on the command line"])
def test_a_job_that_is_submitted_in_a_here_document_has_its_hook(options: bytes) -> None:
    script = b"#!/bin/sh\nset -e\nsbatch -t 5 <<EOT\n#!/bin/bash\n" + options + b"run\nEOT\n"
    wrapped = job_script.put(script)
    assert wrapped == script.replace(b"run\n", PLAIN + b"\nrun\n")
    assert job_script.submissions(script) == [3]
    assert job_script.submissions(wrapped) == [], "it needs no other"
    assert job_script.state(wrapped) is job_script.State.CURRENT
