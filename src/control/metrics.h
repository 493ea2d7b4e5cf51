// SPDX-License-Identifier: Apache-2.0
// The status in Prometheus' text exposition format, version 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/):
// `holdfast metrics` and GET /v1/metrics. Names are interfaces: dashboards and alerts depend on them (docs/formats/api.md).
#pragma once

#include <string>

#include "control/model.h"

namespace holdfast::control {

// Base units: bytes, seconds, 0 or 1. What is unknown is left out, never a made-up number. Pure; any thread.
std::string prometheus_text(const ClusterStatus& status);

}  // namespace holdfast::control
