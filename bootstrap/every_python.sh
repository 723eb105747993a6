#!/bin/sh
# Print every supported Python that is found here and runs, one a line: its version, and where it is. `make test-pythons` calls it.
#
# They are looked for on PATH and among the versions that pyenv keeps.
for version in 3.8 3.9 3.10 3.11; do
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
        if python=$(sh "$(dirname "$0")/find_python.sh" "$candidate" 2>/dev/null); then
            echo "$version $python"
            break
        fi
    done
done
