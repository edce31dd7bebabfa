// Package sekisho is the root of the module and holds no code: the product is the command in cmd/sekisho
// and the packages under internal. Its tests keep the house in order: who may import whom (TestLayers),
// how big things may grow (TestSizeBudget), and that each invariant of the design has a test that names it.
//
//	go test -v -run TestLayers .
package sekisho
