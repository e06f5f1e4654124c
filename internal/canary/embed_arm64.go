package canary

import _ "embed"

//go:embed canary_arm64.elf
var program []byte
