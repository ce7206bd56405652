package main

import (
	"context"
	"encoding/json"

	"github.com/aws/aws-lambda-go/lambda"
)

func main() {
	lambda.Start(func(_ context.Context, event json.RawMessage) (map[string]any, error) {
		return map[string]any{"language": "go", "bytes": len(event)}, nil
	})
}
