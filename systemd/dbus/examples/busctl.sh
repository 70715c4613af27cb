#!/bin/sh
# What is there, and where a model would run. Usage: busctl.sh MODEL [busctl options, e.g. --user]
# With MEASURE=yes all ways to run the model are tried anew first.
set -eu
model=$1
shift
service=org.moted.Inference1
manager=/org/moted/Inference1

busctl "$@" tree $service
busctl "$@" introspect $service $manager
busctl "$@" get-property $service $manager $service.Manager ServerVersion
if [ "${MEASURE:-no}" = yes ]; then
  busctl "$@" --timeout=600 call $service $manager $service.Manager \
    Explain 'sa{sv}' "$model" 1 measure b true
else
  busctl "$@" call $service $manager $service.Manager Explain 'sa{sv}' "$model" 0
fi
