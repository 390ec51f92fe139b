#!/bin/sh
# Builds the library and runs its tests with JUnit 4. All output goes to target/.
# JUNIT is the class path of JUnit and Hamcrest; the default is where Debian's package junit4 puts them.
set -eu
cd "$(dirname "$0")"
junit=${JUNIT:-/usr/share/java/junit4.jar:/usr/share/java/hamcrest.jar}
JAVAC_FLAGS=-Werror ./build.sh
classes=target/javac/test
rm -rf "$classes"
mkdir -p "$classes"
javac --release 8 -Xlint:all -Xlint:-options -Werror -cp "target/javac/main:$junit" -d "$classes" \
    $(find src/test -name '*.java')
tests=$(cd src/test/java && find . -name '*Test.java' | sed 's|^\./||; s|\.java$||; s|/|.|g' | sort)
exec java -cp "target/javac/main:$classes:$junit" org.junit.runner.JUnitCore $tests
