#!/bin/sh
# What is there, and where a model would run. Usage: busctl.sh MODEL [busctl options, e.g. --user]
set -eu
model=$1
shift
service=org.moted.Inference1
manager=/org/moted/Inference1

busctl "$@" tree $service
busctl "$@" introspect $service $manager
busctl "$@" get-property $service $manager $service.Manager ServerVersion
busctl "$@" call $service $manager $service.Manager Explain 'sa{sv}' "$model" 0
