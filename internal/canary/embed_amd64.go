package canary

import _ "embed"

//go:embed canary_amd64.elf
var program []byte
