#!/bin/sh
# Compiles the library with javac into target/sailfish-client.jar, and the programs beside it into target/javac/programs.
# JAVAC_FLAGS has further options.
set -eu
cd "$(dirname "$0")"
main=target/javac/main
programs=target/javac/programs
rm -rf "$main" "$programs"
mkdir -p "$main" "$programs"
javac --release 8 -Xlint:all -Xlint:-options ${JAVAC_FLAGS:-} -d "$main" $(find src/main -name '*.java')
jar cf target/sailfish-client.jar -C "$main" .
javac --release 8 -Xlint:all -Xlint:-options ${JAVAC_FLAGS:-} -cp "$main" -d "$programs" \
    $(find examples conformance chaos -name '*.java')
